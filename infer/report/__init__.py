"""Evidence pages: what a result rests on, for people; a page a patient and an index, HTML without scripts."""
