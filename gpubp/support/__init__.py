"""What any room may need and no room is about: whole files, JSON, optional libraries, facts about the machine."""
