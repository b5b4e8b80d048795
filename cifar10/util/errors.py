"""What a person at the terminal can mend, and what it is told."""

import difflib


class UserError(Exception):
  """Something the person running the program can mend.

  Its text is one complete message: the file or flag, what was found and what
  was expected. The programs print it without a traceback and exit with 1.
  """


def look_up(name, table, what):
  """Returns table[name].

  Args:
    name: a name that the user gave.
    table: dict.
    what: what its names are of, for the message.

  Raises:
    UserError: it has no such name; the message suggests the nearest.
  """
  if name not in table:
    near = difflib.get_close_matches(name, table) or table
    raise UserError(f'there is no {what} {name!r}. Did you mean '
                    + ' or '.join(near) + '?')
  return table[name]
