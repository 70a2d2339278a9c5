"""What happens to text before and after the model. Knows strings only: no pack, no engine.

Rules are data (``rules/*.json``) and code is small scanners, so that hosts in other languages can share both.
"""
