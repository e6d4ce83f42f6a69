package server

import (
	"context"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// together lets the objects of a batch be looked up side by side.
func together(ctx context.Context, b batch) context.Context {
	objects := make([]lookup.Object, len(b.requests))
	for i, r := range b.requests {
		objects[i] = lookup.Object{Kind: r.Resource.Type, ID: r.Resource.ID}
	}
	return lookup.Together(ctx, objects)
}
