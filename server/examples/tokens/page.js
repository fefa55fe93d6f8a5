// Asks, and shows an answer from its first token on. The address names it (#CHANNEL/EPOCH): a page that is reloaded, or another one with this address, reads
// the same from the beginning.

import { connect } from '/throughline.js';

const element = (id) => document.getElementById(id);
const [text, note] = [element('text'), element('note')];
const transports = new URLSearchParams(location.search).get('transports');
const session = connect('/rt', transports ? { transports: transports.split(',') } : {});
let answer = null;

session.on('transport', () => {
  element('transport').textContent = session.transport ?? 'nothing, for the moment';
});
session.closed.then(({ reason }) => say(`The session has ended: ${reason}`));
session.ready.catch((error) => say(error.message));
element('cut').addEventListener('click', () => session.trouble.cut());
element('block').addEventListener('click', () => {
  session.trouble.block(session.transport, 10_000);
  session.trouble.cut();
});
element('form').addEventListener('submit', (event) => {
  event.preventDefault();
  ask(element('question').value).catch((error) => say(error.message));
});
addEventListener('hashchange', read);
read();

async function ask(prompt) {
  const response = await fetch('/ask', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt }),
  });
  const { channel, epoch, error } = await response.json();
  if (!response.ok) throw new Error(error);
  location.hash = `${channel}/${epoch}`;
}

/** Reads the answer that the address names, all of it. */
function read() {
  const [, channel, epoch] = /^#(answer:[^/]+)\/(\d+)$/.exec(location.hash) ?? [];
  answer?.unsubscribe();
  answer = null;
  element('prompt').textContent = text.textContent = note.textContent = '';
  element('count').textContent = '0';
  text.dataset.state = 'idle';
  if (!channel) return;
  text.dataset.state = 'writing';
  // Offset 0 is before the first publication.
  answer = session.subscribe(channel, { since: { epoch: Number(epoch), offset: 0 } });
  const gone = 'This answer is not kept any more.';
  // The epoch is another (the server was started anew), or the beginning is too old: what would follow were half an answer.
  answer.on('subscribed', ({ recovered }) => recovered || end('lost', gone));
  answer.on('end', ({ name, reason }) => end('lost', name === 'TOO_SLOW' ? gone : reason));
  answer.on('publication', ({ data, offset }) => take(JSON.parse(data), offset));
}

/** One publication: it has one field, which says what it is. */
function take({ prompt, token, done, error }, offset) {
  if (prompt !== undefined) {
    element('prompt').textContent = prompt;
  } else if (token !== undefined) {
    text.append(token); // as text: never as markup
    element('count').textContent = offset - 1;
  } else if (done) {
    end('done', done.finish_reason === 'stop' ? '' : `The answer ends here: ${done.finish_reason}.`);
  } else if (error) {
    const when = error.retry_after_s ? ` Ask again in ${error.retry_after_s} s.` : '';
    end('failed', `${error.message}.${when}`);
  }
}

function end(state, why) {
  answer?.unsubscribe();
  answer = null;
  text.dataset.state = state;
  say(why);
}

function say(why) {
  note.textContent = why;
}
