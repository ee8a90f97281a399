// A check of the Go stubs: a unary call, a refusal with its reason, and a stream, each read to the end.
//
// MORAG_TARGET, MORAG_API_KEY and MORAG_JOB_ID (a job that has ended) come from clients/check.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/morag-dev/morag-meta/gen/go/moragmeta/v1"
)

const nobody = "00000000-0000-7000-8000-000000000000"

func main() {
	if err := check(); err != nil {
		fmt.Fprintln(os.Stderr, "go:", err)
		os.Exit(1)
	}
}

func check() error {
	channel, err := grpc.NewClient(os.Getenv("MORAG_TARGET"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer channel.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "x-api-key", os.Getenv("MORAG_API_KEY"))

	user, err := pb.NewUserServiceClient(channel).GetUser(ctx, &pb.GetUserRequest{Id: "me"})
	if err != nil {
		return fmt.Errorf("GetUser: %w", err)
	}
	jobs := pb.NewJobServiceClient(channel)
	reason, err := refusal(ctx, jobs)
	if err != nil {
		return err
	}
	events, err := watch(ctx, jobs, os.Getenv("MORAG_JOB_ID"))
	if err != nil {
		return err
	}
	fmt.Printf("go: GetUser says %s, a missing job %s, WatchJob gives events 1 to %d\n", user.Role, reason, events)
	return nil
}

// refusal asks for a job that does not exist and returns the reason in the error's details.
func refusal(ctx context.Context, jobs pb.JobServiceClient) (string, error) {
	_, err := jobs.GetJob(ctx, &pb.GetJobRequest{Id: nobody})
	refused := status.Convert(err)
	if refused.Code() != codes.NotFound {
		return "", fmt.Errorf("GetJob of a missing job: %v", err)
	}
	for _, detail := range refused.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if ok && info.Domain == "meta.morag.dev" && info.Metadata["resource_id"] == nobody {
			return info.Reason, nil
		}
	}
	return "", fmt.Errorf("GetJob of a missing job gives no reason: %v", refused.Details())
}

// watch reads the stream of an ended job, and returns how many events it has.
func watch(ctx context.Context, jobs pb.JobServiceClient, id string) (int64, error) {
	job, err := jobs.GetJob(ctx, &pb.GetJobRequest{Id: id})
	if err != nil {
		return 0, fmt.Errorf("GetJob: %w", err)
	}
	stream, err := jobs.WatchJob(ctx, &pb.WatchJobRequest{JobId: id})
	if err != nil {
		return 0, fmt.Errorf("WatchJob: %w", err)
	}
	last := &pb.JobEvent{}
	for {
		frame, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("WatchJob: %w", err)
		}
		event := frame.GetEvent()
		if event == nil {
			continue // a heartbeat
		}
		if event.Sequence != last.Sequence+1 {
			return 0, fmt.Errorf("event %d came after %d", event.Sequence, last.Sequence)
		}
		last = event
	}
	if last.Sequence != job.LastSequence || last.State != pb.JobState_JOB_STATE_FINISHED {
		return 0, fmt.Errorf("the stream ended with event %d of %d in state %s", last.Sequence, job.LastSequence, last.State)
	}
	return last.Sequence, nil
}
