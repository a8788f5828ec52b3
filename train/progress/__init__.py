"""How far a training of several stages is, and how long it will still take: reported, estimated, said."""
