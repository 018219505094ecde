"""Small real applications, and what is needed to start them next to a proxy and measure them."""
