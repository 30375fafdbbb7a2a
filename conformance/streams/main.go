// Command streams is a client of exec, attach and port forwarding as older programs speak them: client-go over SPDY.
//
//	streams POD CONTAINER PORT
//
// The pod's container has a shell and cat; at PORT of the pod's localhost somebody answers each line with itself.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

// What a check works on.
type bench struct {
	config         *rest.Config
	client         *kubernetes.Clientset
	pod, container string
	port           string
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil || len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: KUBECONFIG=... streams POD CONTAINER PORT", err)
		os.Exit(2)
	}
	b := bench{config: config, client: kubernetes.NewForConfigOrDie(config), pod: os.Args[1], container: os.Args[2], port: os.Args[3]}
	passed, failed := 0, 0
	for _, check := range b.checks() {
		if err := check.run(); err != nil {
			failed++
			fmt.Printf("FAILED %s: %v\n", check.name, err)
		} else {
			passed++
		}
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

type check struct {
	name string
	run  func() error
}

func (b bench) checks() []check {
	checks := []check{
		{"a gigabyte both ways over SPDY", func() error { return b.bulk(1 << 30) }},
		{"a terminal over SPDY has its size", b.terminal},
		{"ports over SPDY", func() error { return b.forward(false) }},
		{"ports over SPDY inside of WebSocket", func() error { return b.forward(true) }},
		{"a port where nobody listens", b.nobody},
		{"twenty at once", b.many},
	}
	for _, protocol := range []string{"v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"} {
		checks = append(checks, check{"exec over SPDY " + protocol, func() error { return b.protocol(protocol) }})
	}
	return checks
}

// spdy is an executor over SPDY; all protocols are offered where none is named.
func (b bench) spdy(options corev1.PodExecOptions, protocols ...string) (remotecommand.Executor, error) {
	options.Container = b.container
	request := b.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(b.pod).SubResource("exec").
		VersionedParams(&options, scheme.ParameterCodec)
	if len(protocols) == 0 {
		return remotecommand.NewSPDYExecutor(b.config, "POST", request.URL())
	}
	transport, upgrader, err := spdy.RoundTripperFor(b.config)
	if err != nil {
		return nil, err
	}
	return remotecommand.NewSPDYExecutorForProtocols(transport, upgrader, "POST", request.URL(), protocols...)
}

// protocol runs a program that reads, writes to both outputs and fails.
func (b bench) protocol(protocol string) error {
	script := []string{"sh", "-c", "read line; echo got $line; echo complaint >&2; exit 7"}
	executor, err := b.spdy(corev1.PodExecOptions{Command: script, Stdin: true, Stdout: true, Stderr: true}, protocol)
	if err != nil {
		return err
	}
	var out, complaint bytes.Buffer
	err = executor.StreamWithContext(deadline(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello\n"), Stdout: &out, Stderr: &complaint})
	if out.String() != "got hello\n" || complaint.String() != "complaint\n" {
		return fmt.Errorf("it said %q and %q (%v)", out.String(), complaint.String(), err)
	}
	var code exec.CodeExitError
	switch {
	case protocol >= "v4" && (!errors.As(err, &code) || code.Code != 7):
		return fmt.Errorf("it ended with %v", err)
	// Before v4 the end of a program that failed is a sentence.
	case protocol < "v4" && (err == nil || !strings.Contains(err.Error(), "exit code 7")):
		return fmt.Errorf("it ended with %v", err)
	}
	return nil
}

// A reader of so many bytes, and a writer that counts.
type zeroes struct{}

func (zeroes) Read(bytes []byte) (int, error) { return len(bytes), nil }

type counter int64

func (c *counter) Write(bytes []byte) (int, error) {
	*c += counter(len(bytes))
	return len(bytes), nil
}

func (b bench) bulk(size int64) error {
	executor, err := b.spdy(corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true})
	if err != nil {
		return err
	}
	var count counter
	err = executor.StreamWithContext(deadline(), remotecommand.StreamOptions{Stdin: io.LimitReader(zeroes{}, size), Stdout: &count})
	if err == nil && int64(count) != size {
		err = fmt.Errorf("%d bytes came back", count)
	}
	return err
}

// sizes tells one size, and then no more.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

func (b bench) terminal() error {
	script := []string{"sh", "-c", "until [ \"$(stty size)\" = '33 77' ]; do sleep 0.1; done; tty >/dev/null && echo sized"}
	executor, err := b.spdy(corev1.PodExecOptions{Command: script, Stdin: true, Stdout: true, TTY: true})
	if err != nil {
		return err
	}
	queue := make(sizes, 1)
	queue <- remotecommand.TerminalSize{Width: 77, Height: 33}
	var out bytes.Buffer
	stdin, _ := io.Pipe()
	err = executor.StreamWithContext(deadline(), remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Tty: true, TerminalSizeQueue: queue})
	if err == nil && out.String() != "sized\r\n" {
		err = fmt.Errorf("it said %q", out.String())
	}
	return err
}

// listen forwards a port of the machine's to one of the pod's.
func (b bench) listen(tunnel bool, port string) (string, func(), error) {
	url := b.client.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(b.pod).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(b.config)
	if err != nil {
		return "", nil, err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", url)
	if tunnel {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(url, b.config); err != nil {
			return "", nil, err
		}
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:" + port}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return "", nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- forwarder.ForwardPorts() }()
	select {
	case err := <-ended:
		return "", nil, fmt.Errorf("forwarding ended: %w", err)
	case <-ready:
	}
	ports, err := forwarder.GetPorts()
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), func() { close(stop) }, err
}

// forward speaks with the pod over several connections at a time, and closes its direction of one of them first.
func (b bench) forward(tunnel bool) error {
	address, stop, err := b.listen(tunnel, b.port)
	if err != nil {
		return err
	}
	defer stop()
	var all []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer conn.Close()
		all = append(all, conn)
	}
	for round := range 3 {
		for number, conn := range all {
			line := fmt.Sprintf("round %d of %d\n", round, number)
			if _, err := io.WriteString(conn, line); err != nil {
				return err
			}
			if back, err := bufio.NewReader(conn).ReadString('\n'); err != nil || back != line {
				return fmt.Errorf("%q came back (%v)", back, err)
			}
		}
	}
	last := all[0].(*net.TCPConn)
	if _, err := io.WriteString(last, "and good bye\n"); err != nil {
		return err
	}
	if err := last.CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(last)
	if err == nil && string(rest) != "and good bye\n" {
		err = fmt.Errorf("%q came back after the end", rest)
	}
	return err
}

// nobody listens at port 1: the client is told so, in the kubelet's words.
func (b bench) nobody() error {
	// The client's word of it goes where its unhandled errors go.
	told := make(chan string, 16)
	handlers := utilruntime.ErrorHandlers
	utilruntime.ErrorHandlers = []utilruntime.ErrorHandler{func(_ context.Context, err error, _ string, _ ...any) { told <- err.Error() }}
	defer func() { utilruntime.ErrorHandlers = handlers }()
	address, stop, err := b.listen(true, "1")
	if err != nil {
		return err
	}
	defer stop()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		return fmt.Errorf("%q came (%v)", rest, err)
	}
	for {
		select {
		case line := <-told:
			if strings.Contains(line, "error forwarding port 1 to pod") && strings.Contains(line, "onnection refused") {
				return nil
			}
		case <-deadline().Done():
			return errors.New("no word of why")
		}
	}
}

func (b bench) many() error {
	results := make(chan error)
	for range 20 {
		go func() { results <- b.bulk(1 << 20) }()
	}
	var first error
	for range 20 {
		if err := <-results; err != nil {
			first = err
		}
	}
	return first
}

func deadline() context.Context {
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	// Whoever waits ends before the program does.
	context.AfterFunc(limit, cancel)
	return limit
}
