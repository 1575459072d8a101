"""Placement of images in the network input."""
