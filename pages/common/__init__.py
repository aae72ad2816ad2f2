"""What two or more pages use: the sidebar, the digit input, the training panel, figure cards, caches and the canvas.

The sections of one page lie in the folder named after that page. Importing this package starts the care for the
server's memory.
"""

from pages.common.server import server_memory  # noqa: F401
