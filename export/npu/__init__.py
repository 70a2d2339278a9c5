"""Static graphs for the processors of neural networks in phones: fixed shapes, standard operators, calibrated."""
