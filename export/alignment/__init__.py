"""Which source token a target token is from: a statistical aligner, and the attention head that agrees with it best."""
