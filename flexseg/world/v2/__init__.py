"""Version 2 of the street world: larger pictures, photographic surfaces, light and sensor, and more kinds of things.

It shares camera, meshes, rasteriser, fog, rain and lamps with version 1; what differs is here.
"""
