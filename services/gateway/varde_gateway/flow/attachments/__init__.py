"""Files that alerts name: taken in, offered to the peers, fetched from them."""
