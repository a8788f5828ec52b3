"""What was tried beside what ships; nothing that ships imports it."""
