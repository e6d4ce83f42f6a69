package challenge

import (
	"crypto/sha256"
	_ "embed" // the page and what it loads
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"strings"
)

// Assets is where the script and the style of the challenge page are, on every guarded route that takes this path. A site
// adopts challenges by <script src="/.well-known/gatehouse/challenge.js"></script>.
const Assets = "/.well-known/gatehouse/"

//go:embed page/challenge.js
var script []byte

//go:embed page/challenge.css
var style []byte

//go:embed page/challenge.html
var pageHTML string

// Asset answers the file at an absolute path and its media type, or nil.
func Asset(path string) (body []byte, mediaType string) {
	switch path {
	case Assets + "challenge.js":
		return script, "text/javascript; charset=utf-8"
	case Assets + "challenge.css":
		return style, "text/css; charset=utf-8"
	}
	return nil, ""
}

// versioned is the asset's path with a query that changes when the asset does.
func versioned(name string, body []byte) string {
	sum := sha256.Sum256(body)
	return Assets + name + "?v=" + hex.EncodeToString(sum[:4])
}

// texts of the page in one language.
type texts struct{ lang, title, why, noscript, retry, trace string }

func languages() []texts {
	return []texts{
		{"en", "One moment", "We check that you are not a robot. The page you asked for opens by itself afterwards.", "This check needs JavaScript. Please allow it and load the page again.", "Try again", "Trace"},
		{"de", "Einen Moment", "Wir prüfen, dass Sie kein Roboter sind. Danach öffnet sich die gewünschte Seite von selbst.", "Diese Prüfung braucht JavaScript. Bitte erlauben Sie es und laden Sie die Seite neu.", "Noch einmal versuchen", "Vorgang"},
		{"fr", "Un instant", "Nous vérifions que vous n’êtes pas un robot. La page demandée s’ouvrira ensuite d’elle-même.", "Cette vérification nécessite JavaScript. Veuillez l’autoriser et recharger la page.", "Réessayer", "Trace"},
		{"es", "Un momento", "Comprobamos que no es un robot. La página solicitada se abrirá después por sí sola.", "Esta comprobación necesita JavaScript. Permítalo y vuelva a cargar la página.", "Reintentar", "Traza"},
	}
}

// language is the first of a client's Accept-Language that we speak, in its own order; English otherwise.
func language(accept string) texts {
	all := languages()
	for part := range strings.SplitSeq(accept, ",") {
		tag, _, _ := strings.Cut(strings.TrimSpace(part), ";")
		tag, _, _ = strings.Cut(strings.ToLower(tag), "-")
		for _, t := range all {
			if t.lang == tag {
				return t
			}
		}
	}
	return all[0]
}

// Page is the page that solves the issued challenge and then loads what was asked for. It holds no code: see PagePolicy.
func Page(issued any, acceptLanguage, traceID string) (body []byte, lang string, err error) {
	given, err := json.Marshal(issued)
	if err != nil {
		return nil, "", fmt.Errorf("challenge: %w", err)
	}
	t := language(acceptLanguage)
	page := strings.NewReplacer(
		"{lang}", t.lang, "{title}", html.EscapeString(t.title), "{why}", html.EscapeString(t.why), "{noscript}", html.EscapeString(t.noscript),
		"{retry}", html.EscapeString(t.retry), "{trace}", html.EscapeString(t.trace+" "+traceID), "{challenge}", html.EscapeString(string(given)),
		"{script}", versioned("challenge.js", script), "{style}", versioned("challenge.css", style),
	).Replace(pageHTML)
	return []byte(page), t.lang, nil
}

// PagePolicy is the page's Content-Security-Policy: no inline code, nothing from elsewhere but the provider's widget, and in
// nobody's frame.
func PagePolicy(p Provider) string {
	scripts, frames, more := "", "", ""
	switch p {
	case Turnstile:
		scripts, frames = " https://challenges.cloudflare.com", "https://challenges.cloudflare.com"
	case HCaptcha:
		const all = " https://hcaptcha.com https://*.hcaptcha.com"
		scripts, frames, more = all, strings.TrimSpace(all), all
	case RecaptchaV2, RecaptchaV3:
		scripts, frames = " https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/", "https://www.google.com/recaptcha/ https://recaptcha.google.com/recaptcha/"
		more = " https://www.google.com/recaptcha/"
	default:
		frames = "'none'"
	}
	return "default-src 'none'; script-src 'self'" + scripts + "; style-src 'self'" + more + "; connect-src 'self'" + more +
		"; worker-src 'self'; frame-src " + frames + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// Shown reports whether the page can show the provider's challenges.
func (p Provider) Shown() bool { return p != Generic }
