"""An exported model in a server that has TensorFlow only, for a minute, with 64
requests at a time, every third of them bad."""

import base64
import concurrent.futures
import http.client
import io
import itertools
import json
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

from cifar10 import train
from cifar10.data import datasets
from tests.conftest import images_of
from tests.conftest import read_lines_until
from tests.data.test_image_decoders import TOO_LARGE
from tests.programs import run_eval_once
from tests.programs import run_export

CLIENTS, SECONDS = 64, 60
SERVER = '''
import base64, http.server, json, re, sys
import tensorflow as tf

signatures = tf.saved_model.load(sys.argv[1]).signatures
# TensorFlow prepares a function in its first call, and anew in each other call
# that starts meanwhile.
picture = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8))
signatures['serving_default'](image_bytes=[picture])
signatures['images'](images=tf.zeros([1, 32, 32, 3], tf.uint8))

def predict(request):
  if 'image_bytes' in request:
    return signatures['serving_default'](image_bytes=tf.constant(
        [base64.b64decode(one) for one in request['image_bytes']]))
  return signatures['images'](images=tf.constant(request['images'], tf.uint8))

class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def do_POST(self):
    request = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    try:
      self.answer(200, predict(request)['classes'].numpy().tolist())
    except (tf.errors.InvalidArgumentError, ValueError) as e:
      self.answer(400, str(e))

  def do_GET(self):
    memory = re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())
    self.answer(200, {'MB': int(memory.group(1)) // 1024,
                      'cifar10': 'cifar10' in sys.modules})

  def answer(self, code, value):
    text = json.dumps(value).encode()
    self.send_response(code)
    self.send_header('Content-Length', str(len(text)))
    self.end_headers()
    self.wfile.write(text)

  def log_message(self, *args):
    pass

class Server(http.server.ThreadingHTTPServer):
  request_queue_size = 128

server = Server(('127.0.0.1', 0), Handler)
print('port', server.server_port, flush=True)
server.serve_forever()
'''


def encoded(pixels, form):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form)
  return file.getvalue()


def base64_of(contents):
  return {'image_bytes': [base64.b64encode(one).decode() for one in contents]}


def ask(connection, request=None):
  """Returns the code and the content of the answer."""
  connection.request('POST' if request else 'GET', '/', request)
  response = connection.getresponse()
  return response.status, json.loads(response.read())


@pytest.mark.long
def test_a_minute_of_64_clients(make_run, tmp_path):
  run = train.train(make_run(max_steps=8))
  data = datasets.ensure(run.dataset, run.data_dir)
  images = images_of(data.test)[:16]
  expected = run_eval_once(
      f'{run.train_dir}/model.ckpt-8', run, data,
      num_examples=16).probabilities.argmax(1).tolist()
  directory, _ = run_export(run.train_dir, tmp_path)
  good = [json.dumps(base64_of(encoded(image, 'PNG') for image in images)),
          json.dumps({'images': images.tolist()}),
          json.dumps(base64_of([encoded(images[0], 'PNG')]))]
  bad = [json.dumps(request) for request in (
      base64_of([encoded(images[0], 'PNG')[:-30]]), base64_of([b'']),
      base64_of([encoded(images[0], 'PNG'), b'no picture']),
      *(base64_of([content]) for content in TOO_LARGE.values()),
      {'images': np.zeros([1, 31, 32, 3], int).tolist()}, {'images': [[1]]})]

  with subprocess.Popen(
      [sys.executable, '-c', SERVER, str(directory)], stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL, text=True, cwd=tmp_path) as server:
    try:
      port = int(read_lines_until(server, 'port').split()[1])

      def client(number):
        """Returns how many good and how many bad requests were answered."""
        connection, counts = http.client.HTTPConnection('127.0.0.1', port), [
            0, 0]
        for i in itertools.count(number):
          if time.monotonic() > end:
            return counts
          if i % 3 == 2:
            code, _ = ask(connection, bad[i // 3 % len(bad)])
            assert code == 400
          else:
            code, classes = ask(connection, good[i // 3 % len(good)])
            assert code == 200 and classes == expected[:len(classes)]
          counts[i % 3 == 2] += 1

      memory = []
      end = time.monotonic() + SECONDS
      status = http.client.HTTPConnection('127.0.0.1', port)
      with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client, number) for number in range(CLIENTS)]
        while time.monotonic() < end - 1:
          time.sleep(SECONDS / 12)
          _, found = ask(status)
          assert not found['cifar10']
          memory.append(found['MB'])
        counts = np.sum([one.result() for one in clients], 0)
      assert server.poll() is None
    finally:
      server.kill()
  print(f'{counts[0]:,} good and {counts[1]:,} bad requests in {SECONDS} s; '
        f'memory {memory} MB')
  assert counts.min() > 0
  # Flat: what the second half adds to the first is noise.
  half = len(memory) // 2
  assert max(memory[half:]) < 1.1 * max(memory[:half])
