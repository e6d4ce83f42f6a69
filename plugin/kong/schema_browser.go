package kong

import (
	"errors"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func browserFields() []object {
	return []object{
		field("token_cookie", record(
			field("name", object{"type": "string", "match": "^[%w._-]+$"}, "cookie that may carry the token in place of the Authorization header; without it cookies are not looked at"),
			field("strip", object{"type": "boolean", "default": true}, "take it out of the request that goes to the upstream"),
			field("origins", array(object{"type": "string"}), "origins whose pages may make unsafe requests (POST, PUT, …) with the cookie, beside those that the browser calls same-origin by Sec-Fetch-Site; name your own for browsers that do not send it"),
		), "tokens of browsers"),
		field("cors", record(
			field("origins", array(object{"type": "string"}), "whose pages may use the route, such as https://app.example.com; * alone is any, without credentials; none: the edge says nothing of CORS"),
			field("answered_by", oneOf("edge", "edge", "upstream"), "who answers preflights and puts the headers on the upstream's answers: the edge, and then the upstream must not, or the upstream, to which preflights pass without a token. The edge's own errors have them either way"),
			field("methods", object{"type": "array", "default": []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}, "elements": object{"type": "string", "match": "^[A-Z]+$"}}, "methods that pages may use"),
			field("headers", object{"type": "array", "default": []string{"Authorization", "Content-Type"}, "elements": object{"type": "string", "match": "^[%w_-]+$"}}, "headers that pages may send, beside those that the route's own checks read"),
			field("expose", array(object{"type": "string", "match": "^[%w_-]+$"}), "headers that pages may read, beside X-Gatehouse-Decision, RateLimit, RateLimit-Policy, Retry-After and WWW-Authenticate"),
			field("credentials", object{"type": "boolean", "default": false}, "whether pages may use cookies"),
			field("max_age_seconds", integer(600, 0, 86400), "how long browsers may remember a preflight"),
		), "other sites' pages; preflights pass before a token is asked for"),
		field("on_unauthenticated", oneOf("problem", "problem", "redirect"), "what is answered without a good token: 401, or, where a person opens a page (not where a script fetches), a redirect to login.url"),
		field("login", record(
			field("url", object{"type": "string", "referenceable": true, "match_any": object{"patterns": []string{"^https?://", "^/"}, "err": "expected an https URL or a path"}}, "an https URL, or a path of the same site"),
			field("return_parameter", object{"type": "string", "default": "return_to", "match": "^[%w_-]+$"}, "parameter of its query that holds the path and query which were asked for"),
			field("return_origin", object{"type": "string"}, "put before that path, such as https://app.example.com, for a log-in on another site; never taken from the request"),
		), "where on_unauthenticated: redirect sends browsers"),
	}
}

func readBrowser(v value, c *guard.Config) error {
	cookie := v.at("token_cookie")
	c.Cookie = guard.Cookie{Name: cookie.at("name").text(), Keep: !cookie.at("strip").flag(), Origins: cookie.at("origins").texts()}
	cors := v.at("cors")
	c.CORS = guard.CORS{
		Origins: cors.at("origins").texts(), Methods: cors.at("methods").texts(), Headers: cors.at("headers").texts(), Expose: cors.at("expose").texts(),
		Credentials: cors.at("credentials").flag(), MaxAge: time.Duration(cors.at("max_age_seconds").number()) * time.Second,
		Upstream: cors.at("answered_by").text() == "upstream",
	}
	if v.at("on_unauthenticated").text() != "redirect" {
		return nil
	}
	login := v.at("login")
	c.Login = guard.Login{URL: login.at("url").text(), Parameter: login.at("return_parameter").text(), Origin: login.at("return_origin").text()}
	if c.Login.URL == "" {
		return errors.New("config.login.url: is needed for on_unauthenticated: redirect")
	}
	return nil
}
