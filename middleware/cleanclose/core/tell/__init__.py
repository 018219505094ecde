"""Where events go: the reporter, the lines about them, and floods of lines."""
