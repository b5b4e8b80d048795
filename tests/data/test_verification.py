"""What is verified, and when."""

import json
import os
import socket
import zlib

import pytest

from cifar10.data import records
from cifar10.data import verification
from cifar10.util.errors import UserError

TINY = records.Format(height=1, width=2, depth=1, class_names=('a', 'b', 'c'))
CONTENT = bytes([2, 10, 11, 0, 20, 21])


@pytest.fixture
def paths(tmp_path):
  """Two files, so old that another change gives another time."""
  paths = [tmp_path / name for name in ('a.bin', 'b.bin')]
  for path in paths:
    path.write_bytes(CONTENT)
    os.utime(path, (1e9, 1e9))
  return paths


@pytest.fixture
def verify(paths, monkeypatch):
  """Verifies the files as a new process does; returns what it read of them."""
  check = records.check

  def verify(record_format=TINY):
    verification._notes.clear()
    read = []
    monkeypatch.setattr(records, 'check', lambda path, *arguments: (
        read.append(path.name), check(path, *arguments))[1])
    found = verification.checksums(paths, record_format)
    assert found == tuple(f'{zlib.crc32(path.read_bytes()):08x}'
                          for path in paths)
    return read

  return verify


def test_each_state_of_a_file_is_read_once(paths, verify):
  assert verify() == ['a.bin', 'b.bin']
  assert verify() == []
  paths[1].write_bytes(CONTENT[3:] + CONTENT[:3])
  assert verify() == ['b.bin']
  assert verify() == ['b.bin']  # It is too new.
  os.utime(paths[1], (1e9, 1.1e9))
  assert verify() == ['b.bin'] and verify() == []


def test_another_file_of_the_same_size_and_time(paths, verify):
  verify()
  other = paths[0].with_name('other')
  other.write_bytes(bytes([1, 9, 9, 1, 9, 9]))
  os.utime(other, (1e9, 1e9))
  os.replace(other, paths[0])
  assert verify() == ['a.bin']


def test_labels_are_checked_again_for_other_classes(paths, verify):
  verify()
  two = records.Format(height=1, width=2, depth=1, class_names=('a', 'b'))
  for _ in range(2):
    with pytest.raises(UserError, match='a.bin: record 0 .* has label 2'):
      verify(two)


def test_what_is_wrong_is_not_noted(paths, verify):
  paths[1].write_bytes(bytes([9]) + CONTENT[1:])
  os.utime(paths[1], (1e9, 1e9))
  for _ in range(2):
    with pytest.raises(UserError, match=r'b.bin: record 0 .* has label 9'):
      verify()
  paths[1].write_bytes(CONTENT[:-1])
  with pytest.raises(UserError, match='size is 5 bytes, expected .* 3'):
    verify()


@pytest.mark.parametrize('notes', [
    '', '[]', '{"a.bin": 1}', '{"a.bin": [1, 2]}', '{"a.bin": [[], "x"]}',
    '[' * 100000, '{"a.bin": [null, "00000000"], "b.bin": [[], "00000000"]}'])
def test_damaged_notes_are_no_notes(paths, verify, notes):
  (paths[0].parent / verification.NOTES).write_text(notes)
  assert verify() == ['a.bin', 'b.bin']
  assert verify() == []
  assert json.loads((paths[0].parent / verification.NOTES).read_text())


def test_a_directory_that_cannot_be_written_to(paths, verify, capsys):
  # Root can write to any directory, but not to one as if it were a file.
  part = paths[0].parent / (f'{verification.NOTES}.{socket.gethostname()}-'
                            f'{os.getpid()}.part')
  part.mkdir()
  assert verify() == ['a.bin', 'b.bin']
  assert capsys.readouterr().err == (
      f'{part}: Is a directory. So each program verifies the record files '
      'again\n')
  # This process knows them.
  assert verification.checksums(paths, TINY) and not capsys.readouterr().err
