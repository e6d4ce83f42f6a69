// Gatehouse's challenges in a browser. On any page of a site:
//
//   <script src="/.well-known/gatehouse/challenge.js"></script>
//
// From then on a fetch() that is answered with a challenge is repeated with its solution. The page that the edge answers a
// navigation with is driven by this file too, and so is the worker that does the work.
(function () {
  'use strict';

  // The work: find the number whose hash with the salt is the challenge. Hashing is the browser's own, batch by batch, so
  // that even without a worker the page stays alive.
  const batch = 512;
  const encoder = new TextEncoder();

  async function work(challenge) {
    const wanted = Uint8Array.from(challenge.challenge.match(/../g), (digits) => parseInt(digits, 16));
    const same = (hash) => hash.length === wanted.length && hash.every((byte, i) => byte === wanted[i]);
    for (let from = 0; from <= challenge.maxnumber; from += batch) {
      const hashes = await Promise.all(Array.from({ length: batch }, (_, i) => crypto.subtle.digest('SHA-256', encoder.encode(challenge.salt + (from + i)))));
      const at = hashes.findIndex((hash) => same(new Uint8Array(hash)));
      if (at >= 0) {
        return from + at;
      }
      await new Promise((next) => setTimeout(next));
    }
    throw new Error('the challenge has no solution');
  }

  if (typeof document === 'undefined') {
    self.onmessage = async (event) => {
      try {
        self.postMessage({ number: await work(event.data) });
      } catch (error) {
        self.postMessage({ error: String(error) });
      }
    };
    return;
  }

  const script = document.currentScript;
  const send = window.fetch.bind(window);
  const words = {
    en: { working: 'Checking that you are not a robot…', done: 'Done.', failed: 'The check did not succeed.', cookies: 'The check succeeded, but your browser does not keep its cookie.', title: 'Please show that you are not a robot', cancel: 'Cancel' },
    de: { working: 'Es wird geprüft, dass Sie kein Roboter sind…', done: 'Fertig.', failed: 'Die Prüfung ist nicht gelungen.', cookies: 'Die Prüfung ist gelungen, aber Ihr Browser behält ihr Cookie nicht.', title: 'Bitte zeigen Sie, dass Sie kein Roboter sind', cancel: 'Abbrechen' },
    fr: { working: 'Vérification que vous n’êtes pas un robot…', done: 'Terminé.', failed: 'La vérification a échoué.', cookies: 'La vérification a réussi, mais votre navigateur ne conserve pas son cookie.', title: 'Veuillez montrer que vous n’êtes pas un robot', cancel: 'Annuler' },
    es: { working: 'Comprobando que no es un robot…', done: 'Listo.', failed: 'La comprobación no ha tenido éxito.', cookies: 'La comprobación ha tenido éxito, pero su navegador no guarda su cookie.', title: 'Demuestre que no es un robot', cancel: 'Cancelar' },
  };
  const text = () => words[(document.documentElement.lang || navigator.language || 'en').slice(0, 2).toLowerCase()] || words.en;

  // say tells people and screen readers what is going on; '' when nothing is. The region stays in place, empty: what appears
  // together with its text is not announced.
  function say(message) {
    const region = live();
    region.textContent = message;
    region.style.opacity = message ? '1' : '0';
  }

  function live() {
    let region = document.getElementById('gatehouse-status');
    if (!region) {
      region = document.createElement('div');
      region.id = 'gatehouse-status';
      region.setAttribute('role', 'status');
      region.setAttribute('aria-live', 'polite');
      Object.assign(region.style, { position: 'fixed', insetInlineStart: '1rem', bottom: '1rem', padding: '.5rem 1rem', background: '#222', color: '#fff', borderRadius: '.25rem', pointerEvents: 'none', zIndex: '2147483647' });
      document.body.append(region);
    }
    return region;
  }

  // solve answers the value of X-Gatehouse-Challenge.
  async function solve(challenge) {
    if (challenge.provider) {
      return hosted(challenge);
    }
    const number = await inWorker(challenge);
    const { algorithm, challenge: wanted, salt, signature } = challenge;
    return btoa(JSON.stringify({ algorithm, challenge: wanted, number, salt, signature }));
  }

  // inWorker works aside where it can: a site's policy may forbid workers, and none starts from another origin.
  function inWorker(challenge) {
    return new Promise((resolve, reject) => {
      const here = () => work(challenge).then(resolve, reject);
      try {
        const worker = new Worker(script.src);
        worker.onmessage = ({ data }) => {
          worker.terminate();
          data.error ? reject(new Error(data.error)) : resolve(data.number);
        };
        worker.onerror = () => {
          worker.terminate();
          here();
        };
        worker.postMessage(challenge);
      } catch {
        here();
      }
    });
  }

  const providers = {
    turnstile: { src: 'https://challenges.cloudflare.com/turnstile/v0/api.js?render=explicit', api: () => window.turnstile },
    hcaptcha: { src: 'https://js.hcaptcha.com/1/api.js?render=explicit', api: () => window.hcaptcha },
    recaptcha_v2: { src: 'https://www.google.com/recaptcha/api.js?render=explicit', api: () => window.grecaptcha },
    recaptcha_v3: { src: 'https://www.google.com/recaptcha/api.js?render=', api: () => window.grecaptcha },
  };
  const loaded = {};

  function load(src) {
    loaded[src] ||= new Promise((resolve, reject) => {
      const element = document.createElement('script');
      element.src = src;
      element.onload = resolve;
      element.onerror = () => {
        delete loaded[src];
        reject(new Error('the provider cannot be reached'));
      };
      document.head.append(element);
    });
    return loaded[src];
  }

  // hosted shows the provider's widget. A site that wants its own way defines window.gatehouseSolve(challenge).
  async function hosted(challenge) {
    if (typeof window.gatehouseSolve === 'function') {
      return window.gatehouseSolve(challenge);
    }
    const provider = providers[challenge.provider];
    if (!provider) {
      throw new Error('the provider is not known');
    }
    const invisible = challenge.provider === 'recaptcha_v3';
    await load(provider.src + (invisible ? encodeURIComponent(challenge.site_key) : ''));
    const api = provider.api();
    if (challenge.provider.startsWith('recaptcha')) {
      await new Promise((ready) => api.ready(ready));
    }
    if (invisible) {
      return api.execute(challenge.site_key, { action: challenge.action });
    }
    const place = placeForWidget();
    try {
      return await new Promise((resolve, reject) => {
        place.cancelled(() => reject(new Error('cancelled')));
        api.render(place.element, {
          sitekey: challenge.site_key, action: challenge.action, callback: resolve,
          'error-callback': () => reject(new Error('the provider failed')),
        });
      });
    } finally {
      place.remove();
    }
  }

  // placeForWidget is the challenge page's own place, or a dialog, which keeps the keyboard inside and closes by Escape.
  function placeForWidget() {
    const element = document.createElement('div');
    const own = document.getElementById('gatehouse-widget');
    if (own) {
      own.replaceChildren(element);
      return { element, cancelled() {}, remove: () => element.remove() };
    }
    const dialog = document.createElement('dialog');
    const title = document.createElement('p');
    title.id = 'gatehouse-title';
    title.textContent = text().title;
    dialog.setAttribute('aria-labelledby', title.id);
    const cancel = document.createElement('button');
    cancel.type = 'button';
    cancel.textContent = text().cancel;
    cancel.onclick = () => dialog.close();
    dialog.append(title, element, cancel);
    document.body.append(dialog);
    dialog.showModal();
    return {
      element,
      cancelled: (then) => dialog.addEventListener('close', then),
      remove() {
        dialog.close();
        dialog.remove();
      },
    };
  }

  // asked answers the challenge that a response asks to solve, or nothing.
  async function asked(response) {
    if (response.status !== 403 || !(response.headers.get('Content-Type') || '').startsWith('application/problem+json')) {
      return undefined;
    }
    try {
      return (await response.clone().json()).challenge;
    } catch {
      return undefined;
    }
  }

  // Challenges are solved one after the other: what the first solves may clear the others.
  let last = Promise.resolve();
  let underWay = 0;

  // inTurn tells the task whether another was before it.
  function inTurn(task) {
    const waited = underWay++ > 0;
    const turn = last.then(() => task(waited)).finally(() => underWay--);
    last = turn.catch(() => {});
    return turn;
  }

  const tries = 3;

  async function guarded(request) {
    const again = () => send(request.clone());
    let response = await again();
    if (!(await asked(response))) {
      return response;
    }
    return inTurn(async (waited) => {
      if (waited) {
        response = await again();
      }
      try {
        for (let i = 0; i < tries; i++) {
          const challenge = await asked(response);
          if (!challenge) {
            break;
          }
          say(text().working);
          const solved = request.clone();
          solved.headers.set('X-Gatehouse-Challenge', await solve(challenge));
          response = await send(solved);
        }
      } catch (error) {
        console.warn('Gatehouse: the challenge was not solved:', error); // the caller gets the answer that asked for it
      } finally {
        say('');
      }
      return response;
    });
  }

  window.fetch = async function (input, init) {
    const request = new Request(input, init);
    return request.mode === 'no-cors' ? send(request) : guarded(request);
  };

  // The edge's own page: solve, take the clearance, and load what was asked for.
  const key = 'gatehouse-cleared';

  async function page(main) {
    const button = main.querySelector('button');
    const progress = main.querySelector('progress');
    const begin = async (challenge) => {
      button.hidden = true;
      progress.hidden = false;
      say(text().working);
      try {
        for (let i = 0; challenge && i < tries; i++) {
          const response = await send(location.href, {
            headers: { 'X-Gatehouse-Challenge': await solve(challenge), 'X-Gatehouse-Clearance-Only': 'true' }, cache: 'no-store', redirect: 'manual',
          });
          if (response.type === 'opaqueredirect') {
            say(text().done);
            sessionStorage.setItem(key, String(Date.now()));
            location.reload();
            return;
          }
          challenge = await asked(response);
        }
        fail(text().failed);
      } catch (error) {
        console.warn('Gatehouse:', error);
        fail(text().failed);
      }
    };
    const fail = (message) => {
      progress.hidden = true;
      say(message);
      button.hidden = false;
      button.focus();
    };
    button.onclick = () => {
      sessionStorage.removeItem(key);
      location.reload(); // for a challenge that has not expired
    };
    if (Date.now() - Number(sessionStorage.getItem(key)) < 15000) {
      fail(text().cookies); // and do not go round in circles
      return;
    }
    await begin(JSON.parse(main.dataset.gatehouseChallenge));
  }

  function start() {
    say('');
    const main = document.querySelector('main[data-gatehouse-challenge]');
    if (main) {
      page(main);
    }
  }

  if (document.readyState === 'loading') {
    document.addEventListener('DOMContentLoaded', start);
  } else {
    start();
  }
})();
