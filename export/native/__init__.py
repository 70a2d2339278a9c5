"""The file that the C core reads beside weights.bin: native.bin."""
