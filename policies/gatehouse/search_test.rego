package gatehouse.search_test

import data.gatehouse.search

test_actions_are_those_of_an_object_or_of_a_collection if {
	search.actions == {"complete": true, "candidates": [{"name": "DELETE"}, {"name": "GET"}]} with input.resource.id as "17"
	search.actions == {"complete": true, "candidates": [{"name": "GET"}, {"name": "POST"}]} with input.resource.id as "/orders"
}

test_there_are_no_actions_on_what_is_neither if {
	search.actions == {"complete": true, "candidates": []} with input.resource.id as "/orders/{number}"
}
