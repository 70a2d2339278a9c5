"""How a pack stores and multiplies its matrices: fp32 as the reference, INT8 for phones, other forms by choice."""
