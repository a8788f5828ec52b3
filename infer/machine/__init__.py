"""What the machine gives: processors, threads, the encoding of file names. Imports errors alone."""
