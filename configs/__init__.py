"""Shipped YAML files: studies and simulations."""
