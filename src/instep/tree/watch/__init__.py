"""Which paths were touched, as the kernel reports it, and which programs write them."""
