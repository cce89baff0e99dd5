"""How many images, and does a lens make that many?"""
