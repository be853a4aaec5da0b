"""What peers say to each other, as msgpack, with its errors and checked parts."""
