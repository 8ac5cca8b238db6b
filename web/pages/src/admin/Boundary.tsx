/** Shows an error of a section in its place, so that the rest of the page stays usable. */

import { Component, type ReactNode } from "react";
import type { Texts } from "./texts.js";

interface BoundaryProps {
    text: Texts;
    children: ReactNode;
}

export class Boundary extends Component<BoundaryProps, { error: Error | undefined }> {
    override state = { error: undefined };

    static getDerivedStateFromError(error: Error) {
        return { error };
    }

    override render() {
        const { error }: { error: Error | undefined } = this.state;
        if (!error) return this.props.children;
        return (
            <p role="alert" className="trouble">
                {this.props.text.broken} {String(error)}
            </p>
        );
    }
}
