// The panel's only script. Text from elsewhere becomes text: nothing here turns a string into HTML, and the page's policy
// (trusted-types 'none') would stop it. Every page works without this file.

const STANDINGS = ['in_step', 'behind', 'applying', 'held', 'blocked', 'failing', 'drifted', 'damaged', 'observing',
  'paused', 'unreachable', 'unknown'];
const SHAPES = { in_step: '●', behind: '◐', applying: '◑', held: '▮', paused: '▮', observing: '○', blocked: '■',
  failing: '▲', drifted: '◆', damaged: '✖', unreachable: '✕', unknown: '?' };
const STALE_MS = 12000;
const LEADER_LOCK = 'instep-stream';
const channel = new BroadcastChannel('instep-stream');

// Sign-in: a link carries its code behind the #, which browsers send to nobody.
const byCode = document.getElementById('by-code');
const useCode = () => {
  if (!byCode || location.hash.length < 2) return;
  document.getElementById('code').value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, '', location.pathname);
  byCode.requestSubmit();
};
useCode();
addEventListener('hashchange', useCode);

// A code point that shows nothing, or turns the line around, is written out, as the server does.
const visible = text => text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu,
  c => c === '\n' || c === '\t' ? c : '\\u' + c.codePointAt(0).toString(16).padStart(4, '0'));
const moment = iso => iso.length >= 20 && iso[10] === 'T' ? `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC` : visible(iso);

// Contact: how long ago the daemon was heard last.
const banner = document.getElementById('contact');
let heardAt = Date.now();
let serverNow = null;
const heard = now => {
  heardAt = Date.now();
  serverNow = now ?? serverNow;
  if (banner.hidden) return;
  banner.hidden = true;
  banner.textContent = '';
  delete document.body.dataset.stale;
};
const clock = ms => new Date(ms).toISOString().slice(11, 19) + ' UTC';
const lookAtContact = () => {
  const silent = Date.now() - heardAt;
  if (silent < STALE_MS) return;
  const seconds = Math.round(silent / 1000);
  document.body.dataset.stale = 'yes';
  banner.hidden = false;
  banner.textContent = `No contact with this node's daemon for ${seconds} s: what you see is from ${clock(serverNow ?? heardAt)}.`;
};

// Rows: only cells that differ change, so that focus and selection stay.
const shown = { standing: v => visible(v).replaceAll('_', ' '), since: moment, checked: moment };
const put = row => {
  const body = document.getElementById('rows');
  if (!body) return;
  let line = document.getElementById(row.id);
  if (!line) {
    const empty = document.getElementById('row');
    if (!empty || (body.dataset.show === 'troubled' && row.standing === 'in_step')) return;
    line = empty.content.firstElementChild.cloneNode(true);
    line.id = row.id;
    body.append(line);
  }
  const cells = { ...row, shape: SHAPES[row.standing] ?? '?' };
  for (const cell of line.querySelectorAll('[data-f]')) {
    const name = cell.dataset.f;
    const text = (shown[name] ?? visible)(String(cells[name] ?? ''));
    if (cell.textContent !== text) cell.textContent = text;
    if (cell.dataset.to) cell.href = '/filesets/' + encodeURIComponent(row[cell.dataset.to]);
  }
  const kind = STANDINGS.includes(row.standing) ? row.standing : 'unknown';
  if (line.className !== `s-${kind}`) line.className = `s-${kind}`;
};
const standings = new Map();
let isBegun = false;  // the rows that differed from the drawn ones have come
const count = told => {
  const cell = document.getElementById('troubled');
  if (cell && cell.textContent !== String(told.troubled)) cell.textContent = String(told.troubled);
};

// A page that is not kept by rows is read again when something happened to its fileset, unless a form is being filled.
let isStale = false;
const again = () => {
  if (document.visibilityState === 'visible' && !isBusy()) location.reload();
  else isStale = true;
};
const isBusy = () => document.activeElement?.matches('input, textarea, select') ||
  [...document.querySelectorAll('main textarea, main input:not([type=hidden]):not([type=checkbox])')].some(one => one.value !== one.defaultValue);
document.addEventListener('visibilitychange', () => { if (isStale) again(); });

let waiting = 0;
const take = ({ kind, data }) => {
  if (kind === 'beat') heard(data.now_ms);
  else if (kind === 'signed_out') location.assign('/login');
  else if (kind === 'row') {
    heard();
    const before = standings.get(data.id);
    const now = JSON.stringify([data.live, data.head, data.standing, data.reason]);
    standings.set(data.id, now);
    put(data);
    const isOther = before !== now && (before !== undefined || isBegun);
    if (isOther && document.body.dataset.again === data.fileset && waiting === 0) {
      waiting = setTimeout(() => { waiting = 0; again(); }, 700);
    }
  } else if (kind === 'gone') {
    standings.delete(data.id);
    document.getElementById(data.id)?.remove();
  } else if (kind === 'counts') {
    isBegun = true;
    count(data);
  } else if (kind === 'note') {
    heard();
    const list = document.getElementById('notes');
    if (list) {
      const line = document.getElementById('note').content.firstElementChild.cloneNode(true);
      for (const cell of line.querySelectorAll('[data-f]')) {
        cell.textContent = (cell.dataset.f === 'at' ? moment : visible)(String(data[cell.dataset.f] ?? ''));
      }
      list.prepend(line);
      while (list.childElementCount > 500) list.lastElementChild.remove();
    }
  }
};

// One stream for all tabs: the tab that holds the lock reads it and passes everything on.
const lead = () => new Promise(() => {
  const events = new EventSource('/api/v1/events?view=rows&seen=' + encodeURIComponent(document.body.dataset.seen));
  for (const kind of ['beat', 'row', 'gone', 'counts', 'note', 'signed_out', 'stopping']) {
    events.addEventListener(kind, event => {
      const told = { kind, data: JSON.parse(event.data) };
      take(told);
      channel.postMessage(told);
    });
  }
  channel.onmessage = event => {
    if (event.data.kind !== 'hello') return;
    for (const row of rows.values()) channel.postMessage({ kind: 'row', data: row });
    if (counts) channel.postMessage({ kind: 'counts', data: counts });
  };
  const rows = new Map();
  let counts = null;
  events.addEventListener('counts', event => { counts = JSON.parse(event.data); });
  events.addEventListener('row', event => { const row = JSON.parse(event.data); rows.set(row.id, row); });
});
if (document.body.dataset.live) {
  channel.onmessage = event => take(event.data);
  channel.postMessage({ kind: 'hello' });
  if (navigator.locks) navigator.locks.request(LEADER_LOCK, lead);
  else lead();
  setInterval(lookAtContact, 1000);
}

// "The same by command", to the clipboard.
for (const block of document.querySelectorAll('.command')) {
  if (!navigator.clipboard) break;
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'plain';
  button.textContent = 'Copy';
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(block.textContent.trim());
    button.textContent = 'Copied';
  });
  block.after(button);
}

// A question before an act that cannot be taken back by one more click.
for (const form of document.querySelectorAll('form[data-ask]')) {
  form.addEventListener('submit', event => { if (!confirm(form.dataset.ask)) event.preventDefault(); });
}
