package gatehouse.search_test

import data.gatehouse.search

words := {"collection": {"POST": "create", "GET": "list"}, "object": {"PUT": "update", "GET": "read"}}

test_actions_are_those_of_an_object_or_of_a_collection if {
	search.actions == {"complete": true, "candidates": [{"name": "GET"}, {"name": "PUT"}]} with input.resource.id as "17" with data.gatehouse.actions as words
	search.actions == {"complete": true, "candidates": [{"name": "GET"}, {"name": "POST"}]} with input.resource.id as "/orders" with data.gatehouse.actions as words
}

test_there_are_no_actions_on_what_is_neither if {
	search.actions == {"complete": true, "candidates": []} with input.resource.id as "/orders/{number}" with data.gatehouse.actions as words
}
