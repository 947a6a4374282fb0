// Counts the words of a text: {"text": "a b a"} gives {"a": 2, "b": 1}. A program that stays (protocol = "lines").
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"strings"
)

// Job is what the program needs of the JSON of a job.
type Job struct {
	Attempt int
	Payload json.RawMessage
	Out     *json.Encoder
}

// Line is a line that the program writes.
type Line map[string]any

// threadqLines calls handle for one job after the other, and writes the answer that it returns.
func threadqLines(handle func(job Job) Line) error {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr // So that fmt.Println(..) is no answer.
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		job := Job{Out: out}
		if err == nil {
			err = json.Unmarshal(line, &job)
		}
		if err == nil {
			err = out.Encode(handle(job))
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	err := threadqLines(func(job Job) Line {
		var payload struct{ Text *string }
		if json.Unmarshal(job.Payload, &payload) != nil || payload.Text == nil {
			return Line{"error": "the payload has no text", "permanent": true}
		}
		job.Out.Encode(Line{"progress": 0.5, "message": "counting"})
		words := map[string]int{}
		for _, word := range strings.Fields(*payload.Text) {
			words[word]++
		}
		return Line{"result": words}
	})
	if err != nil {
		panic(err)
	}
}
