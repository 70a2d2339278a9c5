"""Graphs of fixed shapes, for providers that take no others."""
