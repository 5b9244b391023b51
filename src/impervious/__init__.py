"""Impervious: an application bus over Lightning."""
