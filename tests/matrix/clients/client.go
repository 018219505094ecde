// Go's net/http as a process: one job a line in, one answer out.
//
// Connections are watched: the transport hides a reset when it has its answer.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

type job struct {
	Port    int     `json:"port"`
	TLS     bool    `json:"tls"`
	Path    string  `json:"path"`
	Next    string  `json:"next"`
	Size    int64   `json:"size"`
	Piece   int     `json:"piece"`
	Chunked bool    `json:"chunked"`
	Close   bool    `json:"close"`
	Expect  string  `json:"expect"`
	Pause   float64 `json:"pause"`
	Timeout float64 `json:"timeout"`
}

type told struct {
	Status int    `json:"status,omitempty"`
	Length int    `json:"length,omitempty"`
	Digest string `json:"digest,omitempty"`
	Error  string `json:"error,omitempty"`
}

type answer struct {
	First  told     `json:"first"`
	Next   *told    `json:"next,omitempty"`
	Reused *bool    `json:"reused,omitempty"`
	Resets []string `json:"resets"`
}

type watch struct {
	sync.Mutex
	connections int
	resets      []string
}

func (w *watch) note(what string, err error) {
	for _, lost := range []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, lost) {
			w.Lock()
			w.resets = append(w.resets, what+" "+lost.Error())
			w.Unlock()
		}
	}
}

type watched struct {
	net.Conn
	watch *watch
}

func (c watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.watch.note("read", err)
	return n, err
}

func (c watched) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.watch.note("write", err)
	return n, err
}

type body struct {
	line  []byte
	left  int64
	at    int
	piece int
	pause time.Duration
	due   int
	first bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	// net/http asks for less than a piece at a time: the pauses are between the pieces.
	if b.due == 0 {
		if !b.first && b.pause > 0 {
			time.Sleep(b.pause)
		}
		b.first = false
		b.due = b.piece
	}
	n := len(p)
	if n > b.due {
		n = b.due
	}
	if int64(n) > b.left {
		n = int(b.left)
	}
	b.due -= n
	for i := 0; i < n; i++ {
		p[i] = b.line[b.at]
		if b.at++; b.at == len(b.line) {
			b.at = 0
		}
	}
	b.left -= int64(n)
	return n, nil
}

func ask(client *http.Client, request *http.Request) told {
	response, err := client.Do(request)
	if err != nil {
		return told{Error: err.Error()}
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return told{Error: err.Error()}
	}
	digest := sha256.Sum256(text)
	return told{Status: response.StatusCode, Length: len(text), Digest: hex.EncodeToString(digest[:])}
}

func run(j job, line []byte) answer {
	seen := &watch{}
	transport := &http.Transport{
		ExpectContinueTimeout: 2 * time.Second,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			connection, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			seen.Lock()
			seen.connections++
			seen.Unlock()
			return watched{connection, seen}, nil
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		Timeout:   time.Duration(j.Timeout * float64(time.Second)),
	}
	scheme := "http"
	if j.TLS {
		scheme = "https"
	}
	address := func(path string) string { return fmt.Sprintf("%s://127.0.0.1:%d%s", scheme, j.Port, path) }
	upload := &body{
		line:  line,
		left:  j.Size,
		piece: j.Piece,
		pause: time.Duration(j.Pause * float64(time.Second)),
		first: true,
	}
	request, _ := http.NewRequest("POST", address(j.Path), upload)
	if !j.Chunked {
		request.ContentLength = j.Size
	}
	request.Close = j.Close
	if j.Expect != "" {
		request.Header.Set("Expect", "100-continue")
	}
	if j.Expect == "impatient" {
		transport.ExpectContinueTimeout = time.Millisecond
	}
	result := answer{First: ask(client, request)}
	seen.Lock()
	result.Resets = append([]string{}, seen.resets...)
	before := seen.connections
	seen.Unlock()
	if result.First.Error == "" {
		again, _ := http.NewRequest("GET", address(j.Next), nil)
		next := ask(client, again)
		seen.Lock()
		reused := seen.connections == before
		seen.Unlock()
		result.Next, result.Reused = &next, &reused
	}
	return result
}

func main() {
	line := []byte(os.Getenv("MATRIX_LINE"))
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]any{
		"versions": map[string]string{"Go net/http": runtime.Version()},
		"missing":  map[string]string{},
	})
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var j job
		if err := json.Unmarshal(lines.Bytes(), &j); err != nil {
			panic(err)
		}
		out.Encode(run(j, line))
	}
}
