"""Picture files: found, read, checked, decoded to crops, by processes of their own. Knows no patient and no network."""
