"""Tools for every room: whole files, JSON, hints, optional libraries, facts about the machine."""
