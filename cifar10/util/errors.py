"""Errors that the user of a program can fix."""

import difflib


class UserError(Exception):
  """An error that the user of a program can fix.

  Its text is one complete message: the file or flag, the value and the expected
  value. The programs print it without a traceback and exit with code 1.
  """


def look_up(name, table, what):
  """Returns table[name].

  Args:
    name: name from the user.
    table: dict.
    what: description of the names, for the message.

  Raises:
    UserError: the table does not contain the name. The message suggests similar
      names.
  """
  if name not in table:
    near = difflib.get_close_matches(name, table) or table
    raise UserError(f'there is no {what} {name!r}. Did you mean '
                    + ' or '.join(near) + '?')
  return table[name]
