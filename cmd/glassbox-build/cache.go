package main

import (
	"context"

	"glassbox/build"
)

func prune(ctx context.Context, p place, q *build.Prune) error { return nil }

func usage(ctx context.Context, p place, q *build.Usage) error { return nil }
