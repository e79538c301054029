// The Go interop driver: one process runs one command with the official client and reports on standard output.
//
// The command language is in tests/interop/README.md. Standard output carries protocol lines only; the client's
// log goes to standard error, or to --log-dir.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

// errUnsupported is returned by commands for which this client has no public way.
var errUnsupported = errors.New("the Go client has no public way to do this")

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "driver: a command is missing (see tests/interop/README.md)")
		return 2
	}
	o, err := parseOptions(args[1:])
	if err == nil {
		// Version 2.1.2 panics in a goroutine of its own after every failed asynchronous send, once it has reported the
		// failure; without a handler that would end the process.
		primitive.PanicHandler = func(thrown interface{}) { fmt.Fprintln(os.Stderr, "driver: the client panicked:", thrown) }
		err = prepareLog(o)
	}
	if err == nil {
		err = dispatch(args[0], o)
	}
	var wrong wrongOptions
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "driver: %v (see tests/interop/README.md)\n", err)
		return 2
	case errors.Is(err, errUnsupported):
		printLine("UNSUPPORTED", args[0])
		return 3
	default:
		printLine("ERROR", reason(err))
		return 1
	}
}

func dispatch(command string, o *options) error {
	switch command {
	case "produce":
		return produce(o)
	case "transact":
		return transact(o)
	case "request":
		return request(o)
	case "reply":
		return reply(o)
	case "push":
		return push(o, func(*primitive.MessageExt) {})
	case "pull":
		return pull(o)
	case "route":
		return route(o)
	case "offsets":
		return offsets(o)
	case "query", "offset-at":
		return errUnsupported
	}
	return wrongOptions("unknown command " + command)
}

func prepareLog(o *options) error {
	rlog.SetLogLevel("warn")
	dir := o.text("log-dir", "")
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return rlog.SetOutputPath(filepath.Join(dir, "rocketmq-client-go.log"))
}
