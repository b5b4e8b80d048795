import errno
import hashlib
import os
import re
import time

import pytest

from cifar10.data import download

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


def good(handler):
  """Serves CONTENT, ranges too."""
  start = int((handler.headers.get('Range') or 'bytes=0-')[6:-1])
  handler.send_response(206 if start else 200)
  handler.send_header('Content-Length', len(CONTENT) - start)
  handler.end_headers()
  handler.wfile.write(CONTENT[start:])


def without_ranges(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', len(CONTENT))
  handler.end_headers()
  handler.wfile.write(CONTENT)


def truncating(handler):
  """Promises all there is, and hangs up after a third of the file."""
  start = int((handler.headers.get('Range') or 'bytes=0-')[6:-1])
  handler.send_response(206 if start else 200)
  handler.send_header('Content-Length', len(CONTENT) - start)
  handler.end_headers()
  handler.wfile.write(CONTENT[start:start + len(CONTENT) // 3])


def hanging_up(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', len(CONTENT))
  handler.end_headers()


def stalling(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', len(CONTENT))
  handler.end_headers()
  handler.wfile.write(CONTENT[:1000])
  time.sleep(2)


def drip(handler, content):
  """Sends a byte ten times a second, for as long as anybody takes them."""
  for i in range(100):
    handler.wfile.write(content[i:i + 1])
    time.sleep(0.1)


def dripping(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', len(CONTENT))
  handler.end_headers()
  drip(handler, CONTENT)


def dripping_headers(handler):
  handler.wfile.write(b'HTTP/1.0 200 OK\r\n')
  drip(handler, b'X-Header: ' + b'x' * 100)


def lying_about_length(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', 5)
  handler.end_headers()
  handler.wfile.write(CONTENT)


def too_long(handler):
  handler.send_response(200)
  handler.end_headers()
  handler.wfile.write(b'x' + CONTENT)


def wrong_bytes(handler):
  handler.send_response(200)
  handler.send_header('Content-Length', len(CONTENT))
  handler.end_headers()
  handler.wfile.write(bytes(len(CONTENT)))


def missing(handler):
  handler.send_error(404)


def not_http(handler):
  handler.wfile.write(b'what?\r\n\r\n')


@pytest.fixture
def part(tmp_path):
  return str(tmp_path / 'file.part')


def fetch(urls, part, timeout=60):
  return download.fetch(urls, part, len(CONTENT), MD5, timeout)


def content(part):
  with open(part, 'rb') as f:
    return f.read()


@pytest.mark.parametrize('respond', [good, without_ranges, truncating])
def test_downloads(serve, part, respond):
  assert fetch([serve(respond)], part) == []
  assert content(part) == CONTENT


def test_file_url(tmp_path, part):
  (tmp_path / 'copy').write_bytes(CONTENT)
  assert fetch([(tmp_path / 'copy').as_uri()], part) == []
  assert content(part) == CONTENT


@pytest.mark.parametrize('respond, reason', [
    (hanging_up, 'ended after 0 of 256,000 bytes'),
    (lying_about_length, 'offers 5 bytes, expected 256,000'),
    (too_long, 'has MD5 .*, expected ' + MD5),
    (wrong_bytes, 'has MD5 .*, expected ' + MD5),
    (missing, 'Not Found'),
    (not_http, 'what'),
])
def test_the_next_source_takes_over(serve, part, respond, reason):
  bad = serve(respond)
  [(url, found)] = fetch([bad, serve(good)], part)
  assert url == bad
  assert re.search(reason, found)
  assert content(part) == CONTENT


@pytest.mark.parametrize('respond, reason', [
    (dripping, r'delivers \d+ bytes a second, expected 5,000 or more'),
    (dripping_headers, 'no answer in 1 seconds')])
def test_a_source_that_drips_is_left(serve, part, monkeypatch, respond, reason):
  monkeypatch.setattr(download, '_SPEED_SECS', 1)
  [(_, found)] = fetch([serve(respond)], part)
  assert re.fullmatch(reason, found)
  monkeypatch.undo()
  assert fetch([serve(good)], part) == []
  assert content(part) == CONTENT


def test_all_fail(serve, part):
  closed = 'http://127.0.0.1:1'
  failures = fetch([closed, serve(missing)], part)
  assert failures[0][0] == closed
  assert 'refused' in failures[0][1]
  assert len(failures) == 2


@pytest.mark.parametrize('answer', [good, without_ranges])
def test_goes_on_with_what_is_there(serve, part, answer):
  asked = []

  def respond(handler):
    asked.append(handler.headers['Range'])
    answer(handler)

  with open(part, 'wb') as f:
    f.write(CONTENT[:1234])
  assert fetch([serve(respond)], part) == []
  assert asked == ['bytes=1234-']
  assert content(part) == CONTENT


@pytest.mark.parametrize('respond', [good, without_ranges])
@pytest.mark.parametrize('damaged', [b'?' * 1234, b'?' * len(CONTENT),
                                     b'?' * (len(CONTENT) + 1)])
def test_a_damaged_part_is_not_the_sources_fault(serve, part, respond, damaged):
  with open(part, 'wb') as f:
    f.write(damaged)
  assert fetch([serve(respond)], part) == []
  assert content(part) == CONTENT


def test_bytes_survive_a_failure(serve, part):
  [(_, found)] = fetch([serve(stalling)], part, timeout=1)
  assert 'timed out' in found
  assert os.path.getsize(part) == 1000
  assert fetch([serve(good)], part) == []
  assert content(part) == CONTENT


def test_an_unwritable_part_is_no_failure_of_the_source(serve, tmp_path):
  with pytest.raises(OSError):
    fetch([serve(good)], str(tmp_path / 'nowhere' / 'file.part'))


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_the_fault_of_the_source(tmp_path, monkeypatch,
                                                    number):
  def fail(*unused_args):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(download, '_append_from', fail)
  with pytest.raises(OSError, match=os.strerror(number)):
    download.fetch(['http://a/', 'http://b/'], str(tmp_path / 'x.part'), 5, '')
