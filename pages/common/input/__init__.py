"""The digit in hand and the ways to another one: canvas, upload editor, pictures that follow the pen."""
