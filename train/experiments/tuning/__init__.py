"""Whether the ImageNet network sees cells better when it is adapted to them."""
