"""Result rows, the ranking and the tables made of them; a report needs neither torch nor any method."""
