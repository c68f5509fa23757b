package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

// Asks a recipe of docs/applications.md for the notes of many tenants at once.
func main() {
	ctx := context.Background()
	var requests []string
	if err := json.Unmarshal([]byte(os.Getenv("TG_REQUESTS")), &requests); err != nil {
		panic(err)
	}
	if err := open(ctx); err != nil {
		panic(err)
	}
	defer pool.Close()
	var all sync.WaitGroup
	var told sync.Mutex
	for _, tenant := range requests {
		all.Add(1)
		go func(tenant string) {
			defer all.Done()
			bodies, err := notes(ctx, tenant)
			if err != nil {
				panic(err)
			}
			line, _ := json.Marshal([]interface{}{tenant, bodies})
			told.Lock()
			defer told.Unlock()
			fmt.Println(string(line))
		}(tenant)
	}
	all.Wait()
}
