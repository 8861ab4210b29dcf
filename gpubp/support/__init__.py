"""What any room may need and none is about: whole files, JSON, hints, optional libraries, facts about the machine."""
