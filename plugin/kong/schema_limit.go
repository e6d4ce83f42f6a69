package kong

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

const ratePattern = "^%d+%-[SMHD]$"

func limitFields() []object {
	return []object{
		field("limits", array(record(
			field("name", object{"type": "string", "required": true, "match": "^[%w_-]+$"}, "shown in RateLimit"),
			field("key", object{"type": "string", "required": true, "match_any": limitKeys()},
				"what is counted by: ip (IPv6 by /64), route, subject, client, tenant, session, claim:name, header:name, or two of them joined by +"),
			field("rate", object{"type": "string", "required": true, "match": ratePattern}, "requests per second, minute, hour or day, such as 60-M"),
			field("window", oneOf("smooth", "smooth", "fixed"), "two weighted windows, or one after another, of which both may be emptied at their edge"),
			field("tiers", record(
				field("claim", object{"type": "string"}, "claim of the token that names the tier"),
				field("rates", texts(object{"match": ratePattern}), "rate by the claim's value, of the same period as the limit's"),
			), "other rates for some callers"),
			field("cost", object{
				"type": "map", "default": object{}, "keys": object{"type": "string", "match": "^[A-Z]+$"},
				"values": object{"type": "integer", "between": []int{0, 1000000}},
			}, "how much a request takes, by method; 1 where none is named, 0 is free"),
			field("exempt", record(
				field("addresses", array(object{"type": "string", "match": "^[%w.:/]+$"}), "addresses or networks (CIDR) that are not counted"),
				field("subjects", array(object{"type": "string"}), "subjects that are not counted; written \"issuer subject\" where there are several issuers"),
			), "who is not counted"),
			field("strict", object{"type": "boolean", "default": false}, "deny while Redis is away, rather than count in each process alone"),
		)), "a request is counted against all of them, or against none if one has no room"),
	}
}

// limitKeys are the patterns of a limit's key: a word, or two.
func limitKeys() object {
	words := []string{"ip", "route", "subject", "client", "tenant", "session", "claim:[%w_:./-]+", "header:[%w_-]+"}
	var patterns []string
	for _, one := range words {
		patterns = append(patterns, "^"+one+"$")
		for _, other := range words {
			patterns = append(patterns, "^"+one+"%+"+other+"$")
		}
	}
	return object{"patterns": patterns, "err": "expected ip, route, subject, client, tenant, session, claim:name or header:name, or two of them joined by +"}
}

func readLimits(v value, c *guard.Config) error {
	for i, l := range v.at("limits").list() {
		at := fmt.Sprintf("config.limits[%d]", i+1)
		out := guard.Limit{
			Name: l.at("name").text(), Key: guard.LimitKey(l.at("key").text()), Fixed: l.at("window").text() == "fixed", Strict: l.at("strict").flag(),
			Tiers: guard.Tiers{Claim: l.at("tiers").at("claim").text()}, Exempt: guard.Exempt{Subjects: l.at("exempt").at("subjects").texts()},
		}
		var err error
		if out.Rate, err = limit.ParseRate(l.at("rate").text()); err != nil {
			return fmt.Errorf("%s.rate: %w", at, err)
		}
		rates := l.at("tiers").at("rates").entries()
		for _, tier := range slices.Sorted(maps.Keys(rates)) {
			rate, err := limit.ParseRate(rates[tier])
			if err != nil {
				return fmt.Errorf("%s.tiers.rates.%s: %w", at, tier, err)
			}
			if out.Tiers.Rates == nil {
				out.Tiers.Rates = map[string]limit.Rate{}
			}
			out.Tiers.Rates[tier] = rate
		}
		out.Cost = l.at("cost").numbers()
		for j, text := range l.at("exempt").at("addresses").texts() {
			p, err := network(text)
			if err != nil {
				return fmt.Errorf("%s.exempt.addresses[%d]: expected an address or a network such as 10.0.0.0/8", at, j+1)
			}
			out.Exempt.Addresses = append(out.Exempt.Addresses, p)
		}
		c.Limits = append(c.Limits, out)
	}
	return nil
}

// network reads an address as the network that holds it alone.
func network(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return a.Unmap().Prefix(a.Unmap().BitLen())
}
