"""The nested protocol: whatever is fitted or chosen is fitted or chosen inside the outer training fold."""
