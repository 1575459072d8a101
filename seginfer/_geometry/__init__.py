"""Placement of images in the network input, and the way back."""
