// Package orders is the sample upstream: an ordinary REST service over orders, which knows nothing of Gatehouse. It trusts
// whoever can reach it, and serves and deletes any order for anybody. Who lists or makes orders it takes from a header, as many
// real services behind a gateway do.
package orders

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Order is one order. Amount is in cents.
type Order struct {
	ID         string    `json:"id"`
	Owner      string    `json:"owner"`
	Department string    `json:"department"`
	Item       string    `json:"item"`
	Amount     int64     `json:"amount"`
	CreatedAt  time.Time `json:"created_at"`
}

// Store keeps orders in memory. Several listeners may share one.
type Store struct {
	Now func() time.Time

	mu     sync.Mutex
	next   int
	orders map[string]Order
}

// NewStore answers a store that already holds a few orders of other people.
func NewStore(now func() time.Time) *Store {
	s := &Store{Now: now, orders: map[string]Order{}}
	for _, o := range []Order{
		{Owner: "someone-else", Department: "sales", Item: "desk", Amount: 24900},
		{Owner: "someone-else", Department: "sales", Item: "lamp", Amount: 3950},
		{Owner: "yet-another", Department: "support", Item: "chair", Amount: 11900},
	} {
		s.Add(o)
	}
	return s
}

// Add stores o under a new id, which it answers with the order.
func (s *Store) Add(o Order) Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	o.ID, o.CreatedAt = strconv.Itoa(s.next), s.Now().UTC()
	s.orders[o.ID] = o
	return o
}

// List answers the orders of one owner, or all if owner is empty, oldest first.
func (s *Store) List(owner string) []Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Order{}
	for _, o := range s.orders {
		if owner == "" || o.Owner == owner {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Order) int {
		return cmp.Or(cmp.Compare(len(a.ID), len(b.ID)), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Get answers the order of this id.
func (s *Store) Get(id string) (Order, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders[id]
	return o, ok
}

// Some answers those of these ids that there are, in their order.
func (s *Store) Some(ids []string) []Order {
	list := []Order{}
	for _, id := range ids {
		if o, ok := s.Get(id); ok {
			list = append(list, o)
		}
	}
	return list
}

// Delete reports whether there was such an order.
func (s *Store) Delete(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.orders[id]
	delete(s.orders, id)
	return ok
}

// caller is the header that says who asks. Without one, everybody's orders are listed.
const caller = "X-Gatehouse-Subject"

// maxBody bounds the body of a new order, in bytes.
const maxBody = 64 << 10

// Handler serves the store. copyName names this listener in the header X-Orders-Copy, so that balancing can be seen.
func Handler(s *Store, copyName string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", func(w http.ResponseWriter, r *http.Request) {
		if ids := r.URL.Query()["ids"]; len(ids) > 0 {
			answer(w, http.StatusOK, s.Some(strings.Split(strings.Join(ids, ","), ",")))
			return
		}
		answer(w, http.StatusOK, s.List(r.Header.Get(caller)))
	})
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Department string `json:"department"`
			Item       string `json:"item"`
			Amount     int64  `json:"amount"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			failed(w, http.StatusBadRequest, "the body is not an order")
			return
		}
		if in.Item == "" || in.Amount < 0 {
			failed(w, http.StatusUnprocessableEntity, "item is required, and amount must not be negative")
			return
		}
		o := s.Add(Order{Owner: r.Header.Get(caller), Department: in.Department, Item: in.Item, Amount: in.Amount})
		w.Header().Set("Location", "/orders/"+o.ID)
		answer(w, http.StatusCreated, o)
	})
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		o, ok := s.Get(r.PathValue("id"))
		if !ok {
			failed(w, http.StatusNotFound, "no such order")
			return
		}
		answer(w, http.StatusOK, o)
	})
	mux.HandleFunc("DELETE /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !s.Delete(r.PathValue("id")) {
			failed(w, http.StatusNotFound, "no such order")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /orders/delete", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			IDs []string `json:"ids"`
		}
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			failed(w, http.StatusBadRequest, "the body names no orders")
			return
		}
		deleted := 0
		for _, id := range in.IDs {
			if s.Delete(id) {
				deleted++
			}
		}
		answer(w, http.StatusOK, map[string]int{"deleted": deleted})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Orders-Copy", copyName)
		mux.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone; there is nobody to tell
}

func failed(w http.ResponseWriter, status int, text string) {
	answer(w, status, map[string]string{"error": text})
}
