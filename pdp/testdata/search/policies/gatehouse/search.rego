# What a search may find: all that the data knows.
package gatehouse.search

subjects := {"complete": true, "candidates": [{"type": "user", "id": id} | some id, _ in data.gatehouse.users]}

resources := {"complete": true, "candidates": [{"type": "record", "id": id} | some id, _ in data.gatehouse.records]}

actions := {"complete": true, "candidates": [{"name": name} | some name in data.gatehouse.verbs]}
